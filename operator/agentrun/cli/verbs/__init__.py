"""The verbs, each once, over ``cli.backend.Backend``: what a person types, what is checked, what is said."""

"""CEL expressions and templates: compiled with types, limited in work, evaluated without I/O.

In reading order: ``ast`` (the type checker's tree), ``cost`` (estimates an evaluation before it is made), ``scope``
(the names that an expression may use, and does use), ``cel`` (compiles an expression), ``evaluation`` (converts values
for the CEL runtime and its results back), ``templates`` (``${…}`` in texts and values). ``diagnostics`` turns errors
into words. ``workflow`` compiles expressions; ``plan`` and ``runner`` evaluate them.
"""

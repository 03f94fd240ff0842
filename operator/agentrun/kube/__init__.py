"""The Kubernetes API: who we are there, how a request is made, and how it fails. It knows nothing of runs.

In reading order: ``credentials`` (where the API server is, and our token), ``errors`` (what every request may raise),
``answers`` (from an answer to an object or to an error), ``client`` (requests on an event loop), ``impersonation`` (a
kubeconfig's ``as``). The operator uses all of it. The command line has a transport of its own (``cli.on_cluster``).
"""

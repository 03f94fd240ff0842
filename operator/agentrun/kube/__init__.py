"""The client of the Kubernetes API: credentials, requests, errors. It knows nothing of runs.

In reading order: ``credentials`` (where the API server is, and our token), ``errors`` (what every request may raise),
``status`` (makes the error of an answer), ``retry`` (when a request is sent again), ``answers`` (reads the body of an
answer), ``client`` (requests on an event loop, over aiohttp), ``impersonation`` (a kubeconfig's ``as``). The command
line has a transport of its own (``cli.on_cluster.client``): it sends one request after another and needs no event loop,
which takes long to import. It shares everything else.
"""

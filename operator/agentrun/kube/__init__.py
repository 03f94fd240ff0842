"""The Kubernetes API: who we are there, how a request is made, and how it fails. It knows nothing of runs.

In reading order: ``credentials`` (where the API server is, and our token), ``errors`` (what every request may raise),
``status`` (from an answer to its error), ``retry`` (when a request is sent again), ``answers`` (what a 2xx says),
``client`` (requests on an event loop, over aiohttp), ``impersonation`` (a kubeconfig's ``as``). The command line has a
transport of its own (``cli.on_cluster.client``): one request after another needs no event loop, which takes long to
import. It shares all but the transport.
"""

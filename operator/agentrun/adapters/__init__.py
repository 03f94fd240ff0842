"""What touches the outside of the operator: kopf, the Kubernetes API, the pods. The only place that imports kopf.

``operator`` is the process and puts the parts together. ``watch_supervisor`` keeps the watches going, ``kopf_handlers``
hands their events on (``kopf_reading`` bounds what kopf reads), ``lister`` and ``relist`` list. ``objects`` and
``pod_status`` turn objects into what ``control`` knows, ``kubernetes`` writes (by ``agentrun.kube``), ``pods`` builds
the pod of a step.
"""

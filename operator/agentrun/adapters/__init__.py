"""Connects the operator to the outside: kopf, the Kubernetes API, the pods. The only package that imports kopf.

``operator`` is the process and puts the parts together. ``watch_supervisor`` keeps the watches going, ``kopf_handlers``
passes their events to the controller (``kopf_reading`` bounds what kopf reads), ``lister`` and ``relist`` list.
``objects`` and ``pod_status`` make the views that ``control`` keeps. ``cluster_api`` implements ``control.cluster`` and
the Lease on ``agentrun.kube``. ``pods`` builds the pod of a step.
"""

"""What touches the outside of the operator: kopf, the Kubernetes API, the pods. The only place that imports kopf.

``operator`` is the process and puts the parts together. ``source`` watches (``kopf_reading`` bounds what kopf reads),
``objects`` and ``pod_status`` turn objects into what ``control`` knows, ``kubernetes`` writes (by ``agentrun.kube``),
``pods`` builds the pod of a step.
"""

"""What touches the outside of the operator: kopf, the Kubernetes API, the pods. The only place that imports kopf."""

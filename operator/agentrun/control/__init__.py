"""From events to effects on a cluster: cache, work queue, expectations, the reconciler, leader election."""

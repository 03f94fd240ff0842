"""The refund example: a workflow and the shop's backend that it works on."""

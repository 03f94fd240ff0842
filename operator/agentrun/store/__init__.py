"""The stores that keep journals, in a bucket or a folder. Objects are created once and, except leases, never changed.

In reading order: ``protocol`` (``Store``, and what each call promises), ``keys``, then the implementations: ``folder``,
``s3`` (botocore) and ``s3_direct`` (the same at half of its CPU). ``s3_errors`` turns botocore's errors into those of
``protocol``. ``open`` chooses an implementation by the store's address. ``side_by_side`` reads many objects at once.
"""

"""Where journals are kept: objects that are created once and never changed, in a bucket or a folder.

In reading order: ``protocol`` (``Store``, and what each call promises), ``keys``, then the implementations: ``folder``,
``s3`` (boto3, one call at a time) and ``s3_direct`` (its fast path). ``open`` chooses one by the address of the store.
``side_by_side`` asks for many objects at once. Only ``journal`` and the composition roots import this.
"""

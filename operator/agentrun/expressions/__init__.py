"""CEL expressions and the templates made of them: compiled with types, bounded in work, evaluated without I/O.

In reading order: ``ast`` (the checker's tree), ``cost`` (what an evaluation may take, estimated before it), ``cel``
(compile), ``evaluation`` (a compiled expression and its values), ``templates`` (``${…}`` in texts and values).
``diagnostics`` says in words what is wrong with one. ``workflow`` compiles with this, ``plan`` evaluates.
"""

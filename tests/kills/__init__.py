"""Kill a process that works with oblivio, at a file operation or at a time; see what is readable; go on; compare.

``server`` starts a process, ``forks``, that has imported everything and forks a child for each trial, so that a
trial costs the work and no import. ``operations`` counts the child's file operations and kills it, or makes one fail.
``scenarios`` is what children do. ``trials`` judges. ``python -m kills`` does all of it and writes the record.
"""

"""From folders of audio files to data sets of records, once, before training.

layouts     where data sets keep their songs: MUSDB18-HQ, MUSDB18, folders of stems, pairs
patterns    which of a song's files are vocals
shards      recordings -> a file of records, and the table of their songs
builder     the TFDS builder: shards in parallel, restartable, on one machine or on Beam
report      what was built, and what was left out, by name
"""

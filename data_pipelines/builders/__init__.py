"""From folders of audio files to data sets of records, once, before training.

layouts.py     what is where: MUSDB18-HQ, MUSDB18, any folder of stems, pairs -> recordings
recordings.py  what a recording is: files of vocals, of other stems, of a mixture
reading.py     recording -> two stems in stereo, at one rate, checked
shards.py      recordings -> a file of records, and what is told of its songs
builder.py     the TFDS builder: shards in parallel, restartable, on one machine or on Beam
report.py      what was built, and what was left out, by name
"""

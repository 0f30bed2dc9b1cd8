"""Data: sources of songs and the batches drawn from them.

    pipeline      training batches by position       augment       changes of a pair of stems; pitch
    sources       opens what `--data` names          segments      what a source offers
    synthesis     embedded songs, cached             folders       songs in folders of audio files
    records       built data sets                    combined      several sources by weight
    song_table    what is known of a set's songs     record_format what a record holds
    stretches     which songs and places are read    mastering     varispeed, filters, limiter
    cache         files of the disk cache            processes     what worker processes share

    python -m data_pipelines.build makes data sets: records of audio files (builders/), songs sung
    by synthesised voices (sung/), real voices to judge by (devset/);
    python -m data_pipelines.inspect (inspect/) shows what is in any source.

How an embedded song is made, from the top down:

    production    voice and band, effects, balance
    composition   key, tempo, sections, chords, notes
    voice         singer, phonetics, articulation, tract
    band          drums, backing (bass, chords; instruments), lead
    dsp           oscillators, modes, filters, rooms
"""

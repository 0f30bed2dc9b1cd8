"""Data: sources of songs and the batches drawn from them.

    source        what every source of songs offers
    sources       opens what `--data` names: embedded songs, records or a folder
    folders       songs in folders of audio files
    records       built data sets; record_format, song_table: what they hold
    combined      several sources, drawn from by weight
    examples      which songs and places an example is made of
    augment       what is done to its stems; mastering, pitch: how
    pipeline      training batches by position
    cache         the disk cache of songs
    processes     worker processes

    python -m data_pipelines.build makes data sets: records of audio files (builders/), songs sung
    by synthesised voices (sung/), instrumental music (music), real voices to judge by (devset/);
    python -m data_pipelines.inspect (inspect/) shows what is in any source.

How an embedded song is made (embedded/), from the top down:

    production    voice and band, effects, balance
    composition   key, tempo, sections, chords, notes
    voice         singer, phonetics, articulation, tract
    band          drums, backing (bass, chords; instruments), lead
    dsp           oscillators, modes, filters, rooms
"""

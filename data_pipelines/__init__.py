"""Data: sources of songs and the batches drawn from them.

    pipeline      training batches by position       augment       changes of a pair of stems
    sources       opens what `--data` names          segments      what a source offers
    synthesis     embedded songs, cached             folders       songs in folders of audio files
                                                     cache         files of the disk cache

How an embedded song is made, from the top down:

    production    voice and band, effects, balance
    composition   key, tempo, sections, chords, notes
    voice         singer, phonetics, articulation, tract
    band          drums, backing (bass, chords; instruments), lead
    dsp           oscillators, modes, filters, rooms
"""

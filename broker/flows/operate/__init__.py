"""What operators do, for the command line and the operator routes alike: one function a use case.

::

    desk      the database and the vault that every use case works with
    fields    what may be given, and every mistake by its place
    apps      create, show, change, suspend, resume; check proves address and secret
    rotation  a second secret: stage, promote, drop
    callers   order systems and their keys
    pools     pools
    numbers   list, import, freeze, open, drain, retire, move
    clearing  every binding on a number released
    tones     voice files: add, submit, approve, reject, remove, export

Every function answers with what can be shown as it is; secrets and keys are never in it, but for a key just made.
"""

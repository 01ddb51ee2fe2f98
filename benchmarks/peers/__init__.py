"""Other libraries, each set up as its documentation says, with all switched off that is not needed.

Each module has a `CONTENDER`, and is imported only where its library is installed.
"""

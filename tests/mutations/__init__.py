"""Breaks the code on purpose, in one place at a time, and runs the tests that should find it.

    python -m tests.mutations [WORD]     only the mutations whose name has the word

``lists/`` has the mutations: what breaks, in which definition, and which tests find it.
"""

"""The evidence of a restore drill, and what is made from it.

A drill ends in one :class:`~archiver.report.evidence.Evidence`. :func:`document.encode` makes the
JSON that is stored in the archive and linked to the one before it (:mod:`chain`); the page, the
Markdown and the JUnit XML are made from the stored bytes and from nothing else, so that they can
be made again at any time and cannot say what the JSON does not.
"""

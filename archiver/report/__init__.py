"""The evidence of a restore drill, and the reports generated from it.

A drill produces one :class:`~archiver.report.evidence.Evidence`. :func:`document.encode` returns
the JSON that is stored in the archive and linked to the previous one (:mod:`chain`). The page, the
Markdown and the JUnit XML are generated from the stored bytes alone, so they can be regenerated at
any time and cannot say anything that the JSON does not.
"""

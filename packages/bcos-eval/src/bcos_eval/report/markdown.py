"""Text that Markdown shows as it is."""

import re


def escape_markdown(text: str) -> str:
    r"""A line whose characters mean nothing to Markdown, in a table's cell too.

    Example:
        >>> print(escape_markdown("a|b <c> d_e"))
        a\|b \<c\> d\_e
    """
    return re.sub(r"([\\`*_\[\]<>|&~$#])", r"\\\1", " ".join(text.split()))

"""`report.html`: one self-contained page about a finished stage. Free of torch.

Record and samples → content (plain data) → charts and page.
"""

"""Reports of runs and benchmarks: one web page, Markdown with pictures, or LaTeX tables.

sources     folders → what they hold, or one line about what is wrong with them
content     runs and benchmarks → a `Report`: sections of charts, tables and pictures
document    what a report, a chart and a table are, without a word about how they look
page, markdown, latex    a `Report` → files
"""

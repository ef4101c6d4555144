"""Reports of runs and benchmarks: one web page, Markdown with pictures, or LaTeX tables.

sources     reads runs and benchmarks from their folders
content     turns them into a `Report`: sections of charts, tables and pictures
document    defines reports, charts and tables, independently of the output format
page, markdown, latex    write a `Report`
"""

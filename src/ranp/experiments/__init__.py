"""What researchers do with the library: data sets, recipes, runs, studies, the paper's tables and the demo.

It uses only the library's public names, and the library never imports it (the command line does, lazily).
"""

"""Are near copies found, and nothing else?"""

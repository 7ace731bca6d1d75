"""One test for each claim of the study notes that can be tested: its name begins with the number of its row.

Each shows the notes' form by a number, and what holds on the scripts' own functions: with the notes' form in a script
its test fails, where that form changes any number (not E003-28, E003-49). Expected numbers come from elsewhere:
by hand, by brute force, by quadrature, from torch.distributions. The rows are in benchmark/claims.
"""

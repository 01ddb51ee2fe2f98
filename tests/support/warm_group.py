"""What processes of test groups have done before they are forked, as it takes seconds."""

import sys
import warnings

import torch
import torch._dynamo

torch.set_num_threads(1)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import group_cases

    group_cases.train("all", 1)
    sys.stdout.flush()

"""Speed of the CUDA kernels without a GPU: what the compiler made of them, and what that allows at best.

cubin.py        kernels of a compiled file: registers, spills, shared memory, instructions
sass.py         instructions, loops, and the longest way through them
kernels.py      the linear kernels by what they compute, compiled for one architecture
plan.py         how the launcher would cut a call into CTAs
gpus.py         facts about GPUs, as data
occupancy.py    CTAs that run side by side on one multiprocessor
roofline.py     from all of these: estimated times
budget.py       the figures that must not grow
"""

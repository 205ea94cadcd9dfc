"""Reward functions for verl's ``reward.custom_reward_function``; ``docs/rewards.md`` says which to take.

`math` holds the functions that verl calls, `answers` reads the final answer out of a response, `grader` keeps the
processes in which answers are compared, and `equivalence` is the comparison, by math-verify.
"""

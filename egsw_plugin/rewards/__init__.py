"""Reward functions for verl's ``reward.custom_reward_function``; ``docs/rewards.md`` says which to take.

verl calls the functions of `math` and `reasoning_gym`. `answers` and `readings` find the final answer of a response;
`dress`, `forms` and `quantities` write it in the one way that math-verify reads. `equivalence` compares two answers by
math-verify, and `gym_tasks` grades by reasoning-gym's own graders, in the processes that `grader` keeps and `limits`
bounds.
"""

"""The loops over the columns of ragged sets, compiled by numba: all compiled code of the package is in this file.

A column is the t-th policy token of each response of a set. Sets are worked on in blocks of columns, which stay in the
processor's caches while they are read, weighed, measured and written. Arrays are flat and contiguous, so that each loop
is compiled once a dtype: R rows, T tokens, values at [row * T + t]. The plain versions in torch are beside the callers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numba
import numpy as np
from numba.extending import overload

BLOCK = 512  # columns of a block; fewer would read rows of large sets in crumbs, which costs more than caches save
# Flags that let sums be reordered, and none that lets the compiler assume that there is no NaN.
FLAGS = {"reassoc", "contract", "arcp", "nsz"}
F = TypeVar("F", bound=Callable[..., Any])
Whole: TypeAlias = int | np.int64
# Not cached on disk: numba's cache does not notice that a function which is called has changed.
compiled: Callable[[F], F] = numba.njit(fastmath=FLAGS, error_model="numpy", nogil=True)


class Layout(NamedTuple):
    """Where the policy tokens of rows stand, set by set.

    members: row numbers, those of a set side by side, int64. start: where each set begins in them, and their number at
    the end, int64 [sets + 1]. counts: policy tokens of each row, int64 [R]. holes: 1 at policy tokens, uint8 [R * T],
    or empty where those of every row are its first ones. tokens: T.
    """

    members: np.ndarray
    start: np.ndarray
    counts: np.ndarray
    holes: np.ndarray
    tokens: int


def work_space(layout: Layout, dtype: np.dtype, tensors: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for a block: [tensors, rows of the largest set, columns], and [8, columns]."""
    most = int(np.diff(layout.start).max(initial=1))
    return np.empty((tensors, most, BLOCK), dtype), np.empty((8, BLOCK), dtype)


# --------------------------------------------------------------------------------------------------------- elements


def exp(x: float) -> float:
    """e to the x; in float32 within 4e-7 of it, and 1e-38 below -87."""
    return math.exp(x)


def _exp(x: Any) -> Callable[[Any], Any]:  # numba wants the same annotations here and below
    """For float32 a polynomial, which the processor computes for many elements at once: x = n log 2 + r."""

    def exp64(x: Any) -> float:
        return math.exp(x)

    if x != numba.float32:
        return exp64
    number = np.float32
    least, most, log2e, half, one = number(-87), number(89), number(1.44269504), number(0.5), number(1)
    log2_high, log2_low = number(0.693359375), number(-2.12194440e-4)  # log 2 in two parts, n times the first exact
    a, b, c, d, e = (
        number(x) for x in (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1)
    )
    bias, shift = np.int32(127), np.int32(23)

    def exp32(x: Any) -> Any:
        x = least if x < least else x  # so written, NaN stays NaN
        x = most if x > most else x
        n = np.float32(math.floor(x * log2e + half))
        r = x - n * log2_high - n * log2_low
        p = ((((a * r + b) * r + c) * r + d) * r + e) * r + half
        two_to_the_n = np.int32((np.int32(n) + bias) << shift).view(np.float32)
        return (p * r * r + r + one) * two_to_the_n

    return exp32


overload(exp, jit_options={"fastmath": FLAGS, "error_model": "numpy"})(_exp)


@compiled
def load(source: np.ndarray, row: Whole, layout: Layout, place: Whole, number: Whole, out: np.ndarray) -> Whole:
    """Copy the `number` policy tokens of a row from `place` on into `out`; return the place after the last of them."""
    zero = out.dtype.type(0)
    begin = row * layout.tokens
    if layout.holes.size == 0:
        part = source[begin + place : begin + place + number]
        for k in range(number):
            out[k] = zero + part[k]
        return place + number
    k = 0
    while k < number:
        if layout.holes[begin + place]:
            out[k] = source[begin + place]
            k += 1
        place += 1
    return place


@compiled
def store(values: np.ndarray, row: Whole, layout: Layout, place: Whole, number: Whole, out: np.ndarray) -> Whole:
    """The inverse of `load`."""
    begin = row * layout.tokens
    if layout.holes.size == 0:
        part = out[begin + place : begin + place + number]
        for k in range(number):
            part[k] = values[k]
        return place + number
    k = 0
    while k < number:
        if layout.holes[begin + place]:
            out[begin + place] = values[k]
            k += 1
        place += 1
    return place


@compiled
def longest(rows: np.ndarray, count: np.ndarray) -> Whole:
    """Most policy tokens of a row."""
    most: Whole = np.int64(0)
    for row in rows:
        most = max(most, count[row])
    return most


@compiled
def alive(row: Whole, first: Whole, width: Whole, count: np.ndarray) -> Whole:
    """How many of the columns from `first` on the row reaches."""
    number: Whole = min(max(count[row] - first, 0), width)
    return number


# ------------------------------------------------------------------------------------------------------------- rows


@compiled
def measure_mask(mask: np.ndarray, tokens: int, count: np.ndarray, width: np.ndarray) -> None:
    """Number of policy tokens of each row, and the position after the last of them."""
    for row in range(count.size):
        own = mask[row * tokens : (row + 1) * tokens]
        number = np.int64(0)
        for t in range(tokens):
            number += own[t] != 0
        in_front = np.int64(0)  # of those that would be the first, if there were no holes
        for t in range(number):
            in_front += own[t] != 0
        count[row] = width[row] = number
        if in_front < number:
            width[row] = tokens
            while own[width[row] - 1] == 0:
                width[row] -= 1


@compiled
def row_sums(
    values: np.ndarray,
    layout: Layout,
    low: np.floating,
    high: np.floating,
    work: np.ndarray,
    total: np.ndarray,
    held_total: np.ndarray,
    held: np.ndarray,
) -> None:
    """Sums over the policy tokens of the rows that are members, as they are and held between two bounds, and how many
    the bounds hold."""
    x = work[0, 0]
    for row in layout.members:
        place: Whole = np.int64(0)
        for first in range(0, layout.counts[row], x.size):
            number = alive(row, first, x.size, layout.counts)
            place = load(values, row, layout, place, number, x)
            plain, kept = np.float64(0), np.float64(0)
            changed = np.int64(0)
            for k in range(number):
                y = low if x[k] < low else x[k]
                y = high if y > high else y
                plain += x[k]
                kept += y
                changed += y != x[k]
            total[row] += plain
            held_total[row] += kept
            held[row] += changed


@compiled
def spread(values: np.ndarray, layout: Layout, out: np.ndarray) -> None:
    """One value a row at all its policy tokens."""
    for row in layout.members:
        begin = row * layout.tokens
        if layout.holes.size == 0:
            out[begin : begin + layout.counts[row]] = values[row]
        else:
            for t in range(begin, begin + layout.tokens):
                if layout.holes[t]:
                    out[t] = values[row]


# ------------------------------------------------------------------------------------------------------------- EGSW


class Softmax(NamedTuple):
    """exp((A + alpha * H) / P) as exp((A * part + H * slope - the largest of the column) * rate), numbers of one dtype.

    stay: a finished response stays in the denominator, with H = 0. mean_one: the mean weight is 1, else their sum.
    fold: the result is A * w, else w. unchanged: what a weight differs from 1 by rounding.
    """

    part: float
    slope: float
    rate: float
    one: float
    unchanged: float
    stay: bool
    mean_one: bool
    fold: bool


@compiled
def egsw(
    entropy: np.ndarray,
    advantages: np.ndarray,
    layout: Layout,
    softmax: Softmax,
    work: np.ndarray,
    columns: np.ndarray,
    out: np.ndarray,
    entropy_total: np.ndarray,
    advantage_total: np.ndarray,
    counts: np.ndarray,
    numbers: np.ndarray,
) -> None:
    """Weigh the tokens of each set by the softmax over its rows.

    advantages: [R], or [R * T]. counts: changed, negative, positive, int64 [3, R]. numbers: sum of the shares, number
    of columns, largest weight, least weight, float64 [4].
    """
    part, slope, rate, one = softmax.part, softmax.slope, softmax.rate, softmax.one
    zero = one - one
    logit, own = work[0], work[1]
    top, total, squares, number, rest, highest, lowest = (
        columns[0], columns[1], columns[2], columns[3], columns[4], columns[5], columns[6]
    )  # fmt: skip
    place = np.zeros(layout.counts.size, np.int64)
    for s in range(layout.start.size - 1):
        rows = layout.members[layout.start[s] : layout.start[s + 1]]
        end = longest(rows, layout.counts)
        for first in range(0, end, top.size):
            width = min(top.size, end - first)
            top[:width] = -np.inf
            total[:width] = squares[:width] = number[:width] = rest[:width] = highest[:width] = zero
            lowest[:width] = np.inf

            # The logit, and the largest of each column.
            for i in range(rows.size):
                row, x, a = rows[i], logit[i], own[i]
                n = alive(row, first, width, layout.counts)
                load(entropy, row, layout, place[row], n, x)
                if advantages.size == layout.counts.size:
                    a[:width] = advantages[row]
                else:
                    load(advantages, row, layout, place[row], n, a)
                entropies = advantage = zero
                for k in range(n):
                    entropies += x[k]
                    advantage += a[k]
                    x[k] = a[k] * part + x[k] * slope
                    top[k] = x[k] if x[k] > top[k] else top[k]
                entropy_total[row] += entropies
                advantage_total[row] += advantage

            # Its exponential, and the sums over the column.
            for i in range(rows.size):
                row, x, a = rows[i], logit[i], own[i]
                n = alive(row, first, width, layout.counts)
                for k in range(n):
                    x[k] = exp((x[k] - top[k]) * rate)
                    total[k] += x[k]
                    squares[k] += x[k] * x[k]
                    number[k] += one
                if softmax.stay:
                    for k in range(n, width):
                        rest[k] += exp((a[k] * part - top[k]) * rate)

            share = 0.0
            present = number.dtype.type(rows.size)
            for k in range(width):
                share += total[k] * total[k] / (squares[k] * number[k])
                all_of_them = present if softmax.stay else number[k]
                total[k] = (all_of_them if softmax.mean_one else one) / (total[k] + rest[k])
            numbers[0] += share
            numbers[1] += width

            # The weight.
            for i in range(rows.size):
                row, x, a = rows[i], logit[i], own[i]
                n = alive(row, first, width, layout.counts)
                changed = negative = positive = np.int32(0)
                for k in range(n):
                    w = x[k] * total[k]
                    highest[k] = w if w > highest[k] else highest[k]
                    lowest[k] = w if w < lowest[k] else lowest[k]
                    v = w * a[k]
                    changed += np.int32((abs(w - one) > softmax.unchanged) & (a[k] != zero))
                    negative += np.int32(v < zero)
                    positive += np.int32(v > zero)
                    x[k] = v if softmax.fold else w
                counts[0, row] += changed
                counts[1, row] += negative
                counts[2, row] += positive
                place[row] = store(x, row, layout, place[row], n, out)
            for k in range(width):
                numbers[2] = max(numbers[2], highest[k])
                numbers[3] = min(numbers[3], lowest[k])


# ------------------------------------------------------------------------------------------------------------- GTPO


class Entries(NamedTuple):
    """How an entropy becomes the entry w - 1, numbers of one dtype.

    low, high: what the entropy is clamped to. unit: of the entropy, in nats. floor: lower bound in 1/H, in that unit.
    geometric: w is relative to the geometric mean. rounding: an entry no further from 0 is 0.
    """

    low: float
    high: float
    unit: float
    floor: float
    geometric: bool
    rounding: float
    one: float
    unchanged: float


@compiled
def entries(
    entropy: np.ndarray,
    rows: np.ndarray,
    first: Whole,
    width: Whole,
    layout: Layout,
    options: Entries,
    inverse: bool,
    place: np.ndarray,
    e: np.ndarray,
    columns: np.ndarray,
    entropy_total: np.ndarray,
    clipped: np.ndarray,
) -> None:
    """Fill e [rows, columns] with w - 1, where w is H * d / sum H over the d rows alive in a column, or with `inverse`
    (1/H) * d / sum 1/H; moves `place` on."""
    one, floor = options.one, options.floor
    zero = one - one
    total, number = columns[0], columns[1]
    total[:width] = number[:width] = zero
    for i in range(rows.size):
        row, x = rows[i], e[i]
        n = alive(row, first, width, layout.counts)
        place[row] = load(entropy, row, layout, place[row], n, x)
        entropies, held = zero, np.int32(0)
        for k in range(n):
            h = options.low if x[k] < options.low else x[k]
            h = options.high if h > options.high else h
            entropies += x[k]
            held += np.int32(h != x[k])
            x[k] = h * options.unit
        entropy_total[row] += entropies
        clipped[row] += held
        if options.geometric:
            for k in range(n):
                x[k] = math.log(floor if x[k] < floor else x[k])
                x[k] = -x[k] if inverse else x[k]
        elif inverse:
            for k in range(n):
                x[k] = one / (floor if x[k] < floor else x[k])
        else:
            for k in range(n):
                x[k] = zero if x[k] < zero else x[k]
        for k in range(n):
            total[k] += x[k]
            number[k] += one
    if not (inverse or options.geometric):
        for k in range(width):
            if total[k] <= floor * number[k]:
                share_equally(e, k, rows, first + k, layout.counts, floor, total, number)
    for k in range(width):
        total[k] = total[k] / number[k] if options.geometric else number[k] / total[k]
    for i in range(rows.size):
        x = e[i]
        n = alive(rows[i], first, width, layout.counts)
        if options.geometric:
            for k in range(n):
                x[k] = exp(x[k] - total[k]) - one
        else:
            for k in range(n):
                x[k] = x[k] * total[k] - one
        if options.rounding > zero:
            for k in range(n):
                x[k] = zero if abs(x[k]) <= options.rounding else x[k]


@compiled
def share_equally(
    e: np.ndarray,
    k: Whole,
    rows: np.ndarray,
    t: Whole,
    count: np.ndarray,
    floor: float,
    total: np.ndarray,
    number: np.ndarray,
) -> None:
    """Equal entropies are what "nobody stands out" means; H / sum H would be 0/0, or the ratio of two errors."""
    for i in range(rows.size):
        if count[rows[i]] > t and not e[i, k] <= floor:
            return
    for i in range(rows.size):
        if count[rows[i]] > t:
            e[i, k] = number.dtype.type(1)
    total[k] = number[k]


@compiled
def measure_entries(
    entropy: np.ndarray,
    layout: Layout,
    success: np.ndarray,
    options: Entries,
    work: np.ndarray,
    columns: np.ndarray,
    entropy_total: np.ndarray,
    total: np.ndarray,
    square: np.ndarray,
    changed: np.ndarray,
    clipped: np.ndarray,
    numbers: np.ndarray,
) -> None:
    """Sums over each row of e and e^2, how many are not 0, and what `egsw` puts into `numbers`."""
    one = options.one
    zero = one - one
    excess, squares, highest, lowest = columns[2], columns[3], columns[4], columns[5]
    number = columns[1]
    place = np.zeros(layout.counts.size, np.int64)
    for s in range(layout.start.size - 1):
        rows = layout.members[layout.start[s] : layout.start[s + 1]]
        inverse = not success[rows[0]]
        end = longest(rows, layout.counts)
        for first in range(0, end, number.size):
            width = min(number.size, end - first)
            entries(
                entropy, rows, first, width, layout, options, inverse, place, work[0], columns, entropy_total, clipped
            )
            excess[:width] = squares[:width] = zero
            highest[:width], lowest[:width] = -np.inf, np.inf
            for i in range(rows.size):
                row, e = rows[i], work[0, i]
                n = alive(row, first, width, layout.counts)
                sum_e = sum_squares = zero
                different = np.int32(0)
                for k in range(n):
                    excess[k] += e[k]
                    squares[k] += e[k] * e[k]
                    highest[k] = e[k] if e[k] > highest[k] else highest[k]
                    lowest[k] = e[k] if e[k] < lowest[k] else lowest[k]
                    sum_e += e[k]
                    sum_squares += e[k] * e[k]
                    different += np.int32(abs(e[k]) > options.unchanged)
                total[row] += sum_e
                square[row] += sum_squares
                changed[row] += different
            share = 0.0
            for k in range(width):  # sums of w and of w^2, from those of e
                w = number[k] + excess[k]
                share += w * w / ((squares[k] + excess[k] + excess[k] + number[k]) * number[k])
                numbers[2] = max(numbers[2], one + highest[k])
                numbers[3] = min(numbers[3], one + lowest[k])
            numbers[0] += share
            numbers[1] += width


@compiled
def write_entries(
    entropy: np.ndarray,
    layout: Layout,
    success: np.ndarray,
    options: Entries,
    scale: np.ndarray,
    offset: np.ndarray,
    equal: np.ndarray,
    work: np.ndarray,
    columns: np.ndarray,
    out: np.ndarray,
    negative: np.ndarray,
    positive: np.ndarray,
    moved: np.ndarray,
    size: np.ndarray,
) -> None:
    """A = e * scale + offset at each policy token; how many of a row are below and above 0; its sums of |A - equal| and
    |A|."""
    zero = options.one - options.one
    place, out_place = np.zeros(layout.counts.size, np.int64), np.zeros(layout.counts.size, np.int64)
    unused, ignored = np.zeros(layout.counts.size), np.zeros(layout.counts.size, np.int64)
    for s in range(layout.start.size - 1):
        rows = layout.members[layout.start[s] : layout.start[s + 1]]
        inverse = not success[rows[0]]
        end = longest(rows, layout.counts)
        for first in range(0, end, columns.shape[1]):
            width = min(columns.shape[1], end - first)
            entries(entropy, rows, first, width, layout, options, inverse, place, work[0], columns, unused, ignored)
            for i in range(rows.size):
                row, v = rows[i], work[0, i]
                n = alive(row, first, width, layout.counts)
                below = above = np.int32(0)
                far = whole = zero
                for k in range(n):
                    v[k] = v[k] * scale[row] + offset[row]
                    below += np.int32(v[k] < zero)
                    above += np.int32(v[k] > zero)
                    far += abs(v[k] - equal[row])
                    whole += abs(v[k])
                negative[row] += below
                positive[row] += above
                moved[row] += far
                size[row] += whole
                out_place[row] = store(v, row, layout, out_place[row], n, out)

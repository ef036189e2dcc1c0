"""PromQL evaluated over samples that a test scraped itself: what alert rules need of it, as Prometheus defines it.

https://prometheus.io/docs/prometheus/latest/querying/basics/ - the parser is promql-parser.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import promql_parser as ast

Labels = frozenset[tuple[str, str]]
"""Of a series, with its name as ``__name__``."""
Vector = dict[Labels, float]
Points = list[tuple[float, float]]
STALE = 300.0
"""Seconds after which a target that is not scraped any more has no values."""
ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv
}  # fmt: skip
COMPARISON: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le
}  # fmt: skip
MATCHES: dict[str, Callable[[str, str], bool]] = {
    "MatchOp.Equal": operator.eq,
    "MatchOp.NotEqual": operator.ne,
    "MatchOp.Re": lambda value, pattern: re.fullmatch(pattern, value) is not None,
    "MatchOp.NotRe": lambda value, pattern: re.fullmatch(pattern, value) is None,
}


class History:
    """All scrapes of a target, by time."""

    def __init__(self) -> None:
        self.scrapes: list[tuple[float, Vector]] = []

    def add(self, now: float, samples: Iterable[tuple[str, dict[str, str], float]]) -> None:
        """One scrape, later than those before."""
        found = {frozenset({"__name__": name, **labels}.items()): value for name, labels, value in samples}
        self.scrapes.append((now, found))

    def at(self, now: float) -> Vector:
        """What was true then: of the latest scrape before, and what that did not have there was not."""
        for time, found in reversed(self.scrapes):
            if time <= now:
                return found if now - time < STALE else {}
        return {}

    def within(self, start: float, end: float) -> dict[Labels, Points]:
        """The samples of each series in this time."""
        found: dict[Labels, Points] = {}
        for time, samples in self.scrapes:
            if start < time <= end:
                for labels, value in samples.items():
                    found.setdefault(labels, []).append((time, value))
        return found

    def evaluate(self, expression: str, now: float) -> Vector:
        """The series for which an alert of this expression would be raised, with their values."""
        found = _Evaluation(self, now).of(ast.parse(expression))
        assert isinstance(found, dict), expression
        return found


def _without(labels: Labels, *names: str) -> Labels:
    return frozenset(each for each in labels if each[0] not in {"__name__", *names})


def _only(labels: Labels, names: Sequence[str]) -> Labels:
    return frozenset(each for each in labels if each[0] in names)


class _Evaluation:
    def __init__(self, history: History, now: float) -> None:
        self._history = history
        self._now = now

    def of(self, expression: Any) -> Any:
        """The value of any node."""
        match expression:
            case ast.NumberLiteral():
                return float(expression.val)
            case ast.ParenExpr():
                return self.of(expression.expr)
            case ast.VectorSelector():
                return self._selected(expression, self._history.at(self._now - _offset(expression)))
            case ast.AggregateExpr() if str(expression.op) == "sum":
                return self._sum(expression)
            case ast.BinaryExpr():
                return _binary(expression, self.of(expression.lhs), self.of(expression.rhs))
            case ast.Call():
                return self._call(expression.func.name, list(expression.args))
        raise NotImplementedError(f"{type(expression).__name__}: {expression.prettify()}")

    def _selected(self, selector: Any, found: dict[Labels, Any]) -> Any:
        wanted = [(each.name, MATCHES[str(each.op)], each.value) for each in selector.matchers.matchers]
        wanted.append(("__name__", operator.eq, selector.name))
        return {
            labels: value
            for labels, value in found.items()
            if all(matches(dict(labels).get(name, ""), text) for name, matches, text in wanted)
        }

    def _sum(self, expression: Any) -> Vector:
        assert expression.modifier.type == ast.AggModifierType.By
        total: Vector = {}
        for labels, value in self._vector(expression.expr).items():
            key = _only(labels, expression.modifier.labels)
            total[key] = total.get(key, 0.0) + value
        return total

    def _vector(self, expression: Any) -> Vector:
        found = self.of(expression)
        assert isinstance(found, dict)
        return found

    def _call(self, name: str, arguments: list[Any]) -> Vector | float:
        if name == "time":
            return self._now
        if name == "absent":
            selector = arguments[0]
            known = {(each.name, each.value) for each in selector.matchers.matchers if str(each.op) == "MatchOp.Equal"}
            return {} if self._vector(selector) else {frozenset(known): 1.0}
        if name == "histogram_quantile":
            rank = self.of(arguments[0])
            assert isinstance(rank, float)
            return _quantiles(rank, self._vector(arguments[1]))
        seconds = arguments[0].range.total_seconds()
        selector = arguments[0].vector_selector
        end = self._now - _offset(selector)
        start = end - seconds
        series = self._selected(selector, self._history.within(start, end))
        several = {_without(labels): points for labels, points in series.items() if len(points) > 1}
        if name == "deriv":
            return {labels: _slope(points) for labels, points in several.items()}
        by = {"increase": 1.0, "rate": seconds}[name]
        return {labels: _increase(points, start, end) / by for labels, points in several.items()}


def _offset(selector: Any) -> float:
    return float(selector.offset.total_seconds()) if selector.offset else 0.0


def _increase(points: Points, start: float, end: float) -> float:
    """Of a counter, also over restarts, extrapolated to the ends of the window as Prometheus does."""
    (first, lowest), (last, _) = points[0], points[-1]
    values = [value for _, value in points]
    grown = sum(after - before if after >= before else after for before, after in pairwise(values))
    between = (last - first) / (len(points) - 1)
    before, after = first - start, end - last
    before = before if before < 1.1 * between else between / 2
    after = after if after < 1.1 * between else between / 2
    if grown > 0:
        before = min(before, (last - first) * lowest / grown)
    return grown * (last - first + before + after) / (last - first)


def _slope(points: Points) -> float:
    start = points[0][0]
    times, values = [time - start for time, _ in points], [value for _, value in points]
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    squares = sum((time - middle) ** 2 for time in times)
    return sum((time - middle) * (value - mean) for time, value in zip(times, values, strict=True)) / squares


def _quantiles(rank: float, buckets: Vector) -> Vector:
    """Of histograms, each from its buckets, by even spread inside of one."""
    histograms: dict[Labels, Points] = {}
    for labels, count in buckets.items():
        histograms.setdefault(_without(labels, "le"), []).append((float(dict(labels)["le"]), count))
    found: Vector = {}
    for labels, unsorted in histograms.items():
        bounds = sorted(unsorted)
        wanted = rank * bounds[-1][1]
        if bounds[-1][1] == 0:
            continue  # it is NaN, with which no comparison holds
        below = (0.0, 0.0)
        for bound, count in bounds:
            if count >= wanted:
                share = (wanted - below[1]) / (count - below[1])
                found[labels] = below[0] if bound == float("inf") else below[0] + (bound - below[0]) * share
                break
            below = bound, count
    return found


def _binary(expression: Any, left: Any, right: Any) -> Any:
    sign = str(expression.op)
    assert not (expression.modifier and expression.modifier.return_bool), "not needed by an alert"
    if isinstance(left, dict) and isinstance(right, dict):
        return _matched(sign, expression.modifier, left, right)
    if not isinstance(left, dict) and not isinstance(right, dict):
        return ARITHMETIC[sign](left, right)
    found: Vector = {}
    for labels, value in (left if isinstance(left, dict) else right).items():
        pair = (value, right) if isinstance(left, dict) else (left, value)
        if sign not in COMPARISON:
            found[_without(labels)] = ARITHMETIC[sign](*pair)
        elif COMPARISON[sign](*pair):
            found[labels] = value
    return found


def _matched(sign: str, modifier: Any, left: Vector, right: Vector) -> Vector:
    matching = modifier.matching if modifier else None

    def key(labels: Labels) -> Labels:
        if matching is None:
            return _without(labels)
        include = matching.type == ast.LabelModifierType.Include
        return _only(labels, matching.labels) if include else _without(labels, *matching.labels)

    others = {key(labels): value for labels, value in right.items()}
    if sign == "and":
        return {labels: value for labels, value in left.items() if key(labels) in others}
    if sign == "unless":
        return {labels: value for labels, value in left.items() if key(labels) not in others}
    if sign == "or":
        mine = {key(labels) for labels in left}
        return left | {labels: value for labels, value in right.items() if key(labels) not in mine}
    assert len(others) == len(right), "several series on the right for one on the left"
    assert len({key(labels) for labels in left}) == len(left), "several series on the left for one on the right"
    pairs = {labels: (value, others[key(labels)]) for labels, value in left.items() if key(labels) in others}
    if sign in COMPARISON:
        return {labels: one for labels, (one, two) in pairs.items() if COMPARISON[sign](one, two)}
    return {_without(labels): ARITHMETIC[sign](one, two) for labels, (one, two) in pairs.items()}

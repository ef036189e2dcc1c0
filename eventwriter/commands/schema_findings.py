"""What becomes of a stream's rows in its live table, in words: one finding for each thing that has a say in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eventwriter.commands.findings import Finding
from eventwriter.config.loading import StreamConfig
from eventwriter.errors import CONFIGURATION, listed, remedy_for_omitted
from eventwriter.postgres.inspection import Inspection, obstacles
from eventwriter.postgres.plan import Plan, Target
from eventwriter.stream import Column, Stream

_REFUSED = "a dead letter"
_UNFIT = {
    "smallint": f"beyond 16 bits is {_REFUSED}",
    "integer": f"beyond 32 bits is {_REFUSED}",
    "real": f"keeps 6 digits, beyond 3.4e38 is {_REFUSED}",
    "character varying": f"longer is {_REFUSED}",
}
"""Live type → what becomes of a value of the declared type that does not fit."""


@dataclass(frozen=True, slots=True)
class Described:
    """Tells of one stream and its table."""

    stream: StreamConfig
    declaration: Stream
    plan: Plan
    seen: Inspection
    role: str

    def findings(self) -> Iterator[Finding]:
        """All there is to tell, but for privileges; first what stops the stream."""
        for part in (self._obstacles, self._way, self._columns, self._keys, self._meddlers, self._storage):
            yield from part()

    def _told(self, text: str, *, warning: bool = False) -> Finding:
        return Finding(self.stream.name, text, warning=warning)

    @property
    def _declared(self) -> tuple[Column, ...]:
        return *self.declaration.columns, *self.declaration.computed

    @property
    def _upsert(self) -> bool:
        return self.plan.mode == "upsert"

    # --- how rows go in -------------------------------------------------------------------------------------------

    def _way(self) -> Iterator[Finding]:
        relation, plan = self.seen.relation, self.plan
        head = f"{plan.table_name}: {len(plan.targets)} columns"
        if relation.secured:
            policies = listed(relation.policies) or "none"
            yield self._told(
                f"{head}, INSERT of each row by itself, for row security applies to role {self.role}: what its "
                f"policies keep out ({policies}) becomes {_REFUSED}; ALTER ROLE {self.role} BYPASSRLS ends that",
                warning=True,
            )
        elif self._upsert:
            yield self._told(f"{head}, by way of a temporary table, for the latest row of a key replaces")
        elif self.seen.keys:
            yield self._told(f"{head}, COPY; while keys are met that are there, by way of a temporary table")
        else:
            yield self._told(f"{head}, COPY, for it has no unique key")
        if self.declaration.key and not self._upsert:
            yield self._told(f"no row replaces another, though {self._why_keyless()}", warning=True)

    def _why_keyless(self) -> str:
        key, keys = ", ".join(self.declaration.key), self.seen.keys
        wanted = f"the latest of ({key}) should"
        if not keys:
            return f"{wanted}: there is no key ({key})"
        if deferrable := [each.name for each in keys if each.deferrable]:
            return f"{wanted}: {listed(deferrable)} is deferrable, which ON CONFLICT does not take"
        return f"{wanted}: that takes ({key}) as the only key of whole columns, and it has {listed(self._named_keys())}"

    def _named_keys(self) -> list[str]:
        return [f"{each.name} ({each.columns})" for each in self.seen.keys]

    # --- columns --------------------------------------------------------------------------------------------------

    def _columns(self) -> Iterator[Finding]:
        plan, ours = self.plan, self._declared
        live = {each.name: each for each in self.seen.columns}
        written = [
            target.name
            if target.name == ours[target.position].name
            else f"{ours[target.position].name} to {target.name}"
            for target in plan.targets
        ]
        yield self._told(f"writes {', '.join(written)}")
        made = [f"{name} ({live[name].value})" for name in plan.omitted if name in live]
        if lacking := [name for name in plan.omitted if name not in live]:
            remedy = remedy_for_omitted(self.stream.name)
            yield self._told(f"written without {', '.join(lacking)}: {remedy}", warning=True)
        if made:
            wanted = f"streams.{self.stream.name}.omit names what is not wanted"
            yield self._told(
                f"written without {', '.join(made)}, whose values are PostgreSQL's: {wanted}", warning=True
            )
        if self.stream.omit:
            yield self._told(f"as streams.{self.stream.name}.omit says, without {', '.join(self.stream.omit)}")
        filled = {target.name for target in plan.targets}
        if others := [f"{each.name} ({each.value})" for each in self.seen.columns if each.name not in filled]:
            yield self._told(f"not filled by the stream, but with what is in brackets: {', '.join(others)}")
        if types := [*filter(None, (self._type(target, live[target.name].type) for target in plan.targets))]:
            yield self._told(f"other types than the stream's: {'; '.join(types)}")
        if required := [target.name for target in plan.targets if target.not_null]:
            yield self._told(f"a row without {', '.join(required)} (NOT NULL) becomes {_REFUSED}")

    def _type(self, target: Target, full: str) -> str:
        """What is to be told of the type of a live column; empty if it is the stream's."""
        declared = self._declared[target.position].type
        limited = target.type == "character varying" and "(" in full
        if target.type == declared or (target.type, declared) == ("timestamp with time zone", "timestamptz"):
            return ""
        if target.type == "bigint" or (target.type == "character varying" and not limited and declared == "text"):
            return ""
        unfit = _UNFIT.get(target.type, "takes every value")
        if target.type == "character varying" and not limited:
            unfit = "takes every value"
        return f"{target.name} is {full} for {declared}: {unfit}"

    # --- what keeps rows out --------------------------------------------------------------------------------------

    def _keys(self) -> Iterator[Finding]:
        for each in self.seen.keys:
            where = f" of partition {each.partition}" if each.partition else ""
            condition = f" where {each.condition}" if each.condition else ""
            what = "row that excludes it" if each.exclusion else "one"
            fate = f"becomes {_REFUSED}, unless that is equal in all columns: then it is done"
            if self._upsert and each.plain and not each.partition and self._is_ours(each):
                fate = "replaces it, unless that is newer"
                if self.plan.guard is None:
                    fate = "replaces it"
                if self.plan.apart:
                    fate += f"; with another {', '.join(self.plan.apart)} it becomes {_REFUSED}"
            by = f"{each.name} ({each.columns}{condition}){where}"
            yield self._told(f"a row that meets another {what} by {by} {fate}")
        if self.seen.constraints:
            yield self._told(f"what {', '.join(self.seen.constraints)} refuses becomes {_REFUSED}")

    def _is_ours(self, key: Any) -> bool:
        return sorted(self.plan.keys[0]) == sorted(key.columns.replace('"', "").split(", "))

    def _meddlers(self) -> Iterator[Finding]:
        for each in self.seen.triggers:
            if each.insert or (self._upsert and each.update):
                what = (
                    "may change a row; one that it leaves out or refuses" if each.may_drop else "a row that it refuses"
                )
                level = "row" if each.row else "statement"
                rights = "" if each.definer else f"; it has the rights of role {self.role}"
                yield self._told(f"trigger {each.name} of each {level}: {what} becomes {_REFUSED}{rights}")
        for each in self.seen.rules if not self._upsert else ():
            if each.insert:
                yield self._told(
                    f"rule {each.name}: COPY passes it over; where rows are tried one by one, what it leaves out "
                    f"becomes {_REFUSED}, and what it doubles stops the stream",
                    warning=True,
                )
        relation = self.seen.relation
        if relation.without_default:
            tables = listed(relation.without_default)
            yield self._told(
                f"{tables} has no default partition: a row that no partition takes becomes {_REFUSED}", warning=True
            )

    # --- where rows are kept --------------------------------------------------------------------------------------

    def _storage(self) -> Iterator[Finding]:
        relation, hypertable = self.seen.relation, self.seen.hypertable
        if relation.partitions and hypertable is None:
            yield self._told(f"{relation.partitions} partitions or tables that inherit from it")
        if hypertable is not None:
            late = "a late row of a compressed chunk costs more" if hypertable.compressed else "nothing is compressed"
            yield self._told(f"hypertable of {hypertable.chunks} chunks by {hypertable.dimensions}; {late}")
        if relation.unlogged:
            yield self._told(
                "UNLOGGED: a crash of PostgreSQL empties it, and the ledger takes what was in it for written: "
                f"ALTER TABLE {self.plan.table_name} SET LOGGED",
                warning=True,
            )
        if relation.foreign:
            yield self._told(
                f"rows of foreign table {listed(relation.foreign)} are committed elsewhere: after a crash a row may be "
                "there twice, or be missing",
                warning=True,
            )

    def _obstacles(self) -> Iterator[Finding]:
        for text in obstacles(self.plan, self.seen):
            yield Finding(self.stream.name, text, CONFIGURATION)

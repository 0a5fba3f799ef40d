"""What a GraphQL query may cost, found before anything of it is done. Pure.

Depth, fields and cost of a document are counted as they would be run: fragments where they are spread, a list as many times as it may have items. Counting itself stops at the limits, so that a small
document of fragments within fragments takes no time either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
)

from esplanade.core.errors import InvalidInput, LimitExceeded

MAX_QUERY_CHARS: Final = 10_000
MAX_DEPTH: Final = 8
MAX_FIELDS: Final = 500
MAX_COST: Final = 20_000
INTROSPECTION_DEPTH: Final = 16
PAGE: Final = 50
MAX_PAGE: Final = 200
LISTS: Final[Mapping[str, int]] = {"venues": 20, "levels": 10, "stores": PAGE, "offers": 10, "lines": PAGE, "scenarios": 10}
"""Fields that are lists, and how many items are reckoned where the query does not say `first`."""


class _Count:
    def __init__(self, document: DocumentNode, variables: Mapping[str, Any]) -> None:
        self.fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
        self.variables = variables
        self.fields = 0

    def cost(self, selections: SelectionSetNode | None, depth: int, limit: int) -> int:
        """Of one item with these selections."""
        if selections is None:
            return 0
        if depth > limit:
            raise LimitExceeded(f"a query more than {limit} levels deep: ask in several")
        total = 0
        for node in selections.selections:
            self.fields += 1
            if self.fields > MAX_FIELDS:
                raise LimitExceeded(f"a query of more than {MAX_FIELDS} fields, fragments counted where they are spread: ask for less")
            if isinstance(node, FieldNode):
                name = node.name.value
                inner = INTROSPECTION_DEPTH if name in ("__schema", "__type") else limit
                total += 1 + self._times(node) * self.cost(node.selection_set, depth + 1, inner)
            elif isinstance(node, InlineFragmentNode):
                total += self.cost(node.selection_set, depth + 1, limit)
            elif isinstance(node, FragmentSpreadNode):
                fragment = self.fragments.get(node.name.value)
                total += 0 if fragment is None else self.cost(fragment.selection_set, depth + 1, limit)
            if total > MAX_COST:
                raise LimitExceeded(
                    f"a query that costs more than {MAX_COST} (fields times the items of their lists): ask for fewer at once, with `first`"
                )
        return total

    def _times(self, node: FieldNode) -> int:
        times = LISTS.get(node.name.value, 1)
        for argument in node.arguments or ():
            if argument.name.value == "first":
                value: Any = None
                if isinstance(argument.value, IntValueNode):
                    value = int(argument.value.value) if len(argument.value.value) < 10 else MAX_PAGE
                elif isinstance(argument.value, VariableNode):
                    value = self.variables.get(argument.value.name.value)
                if isinstance(value, int) and not isinstance(value, bool):
                    times = max(1, min(value, MAX_PAGE))
        return times


def check_cost(document: DocumentNode, operation: str | None, variables: Mapping[str, Any]) -> int:
    """The cost of the operation that is asked for. Raises InvalidInput where there is none or it is no query, LimitExceeded."""
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    chosen = [node for node in operations if operation is None or (node.name is not None and node.name.value == operation)]
    if len(chosen) != 1:
        raise InvalidInput(f"operationName {operation!r}: {len(chosen)} operations of the document answer to it; name one")
    if chosen[0].operation.value != "query":
        raise InvalidInput(f"a {chosen[0].operation.value}: GraphQL is for reading here; change things by frames or REST")
    return _Count(document, variables).cost(chosen[0].selection_set, 1, MAX_DEPTH)

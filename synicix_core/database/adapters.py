"""DataJoint's adapters, mended: primary keys for users who may only read, and refused privileges as errors of ours."""

from __future__ import annotations

from typing import Any

from synicix_core.database.quiet import datajoint
from synicix_core.errors import ConfigurationError

__all__ = ["AccessRefused", "mend_adapter"]

_GRANTS = "The GRANT statements for each kind of user are in docs/operating.md, under Users."


class AccessRefused(ConfigurationError, datajoint.errors.AccessError):  # type: ignore[misc]
    """The database does not let this user do what a statement does; DataJoint's own error as well."""


class _Mended:
    """What both adapters have in common.

    Parameters
    ----------
    user : str
        As whom the connection is open.
    """

    def __init__(self, user: str) -> None:
        super().__init__()
        self._user = user

    def translate_error(self, error: Exception, query: str = "") -> Exception:
        """Return the error to raise instead of a driver's."""
        translated: Exception = super().translate_error(error, query)  # type: ignore[misc]
        if not isinstance(translated, datajoint.errors.AccessError):
            return translated
        return AccessRefused(
            "the database user may not do this", where=f"user {self._user}", why=_said(error), hint=_GRANTS
        )


class _MySQL(_Mended, datajoint.adapters.MySQLAdapter):  # type: ignore[misc]
    pass


class _PostgreSQL(_Mended, datajoint.adapters.PostgreSQLAdapter):  # type: ignore[misc]
    """Reads primary keys from PostgreSQL's own catalogue, which everybody may read.

    DataJoint asks `information_schema.table_constraints`, which shows a table's constraints to nobody who may only select
    from it. Tables would then seem to have no primary key.
    """

    def get_primary_key_sql(self, schema_name: str, table_name: str) -> str:
        """Return the query for the columns of a table's primary key."""
        return (
            f"SELECT a.attname AS column_name {_PRIMARY_KEYS} "
            f"AND n.nspname = {self.quote_string(schema_name)} AND t.relname = {self.quote_string(table_name)} "
            "ORDER BY k.place"
        )

    def load_primary_keys_sql(self, schemas_list: str, like_pattern: str) -> str:
        """Return the query for the columns of all primary keys in some schemas, whose names are SQL."""
        return (
            """SELECT '"' || n.nspname || '"."' || t.relname || '"' AS tab, a.attname AS column_name """
            f"{_PRIMARY_KEYS} AND t.relname NOT LIKE {like_pattern} AND n.nspname IN ({schemas_list}) "
            "ORDER BY n.nspname, t.relname, k.place"
        )


_PRIMARY_KEYS = (
    "FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace "
    "CROSS JOIN LATERAL unnest(c.conkey) WITH ORDINALITY AS k(attnum, place) "
    "JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum WHERE c.contype = 'p'"
)
_ADAPTERS = {datajoint.adapters.MySQLAdapter: _MySQL, datajoint.adapters.PostgreSQLAdapter: _PostgreSQL}


def mend_adapter(connection: Any) -> None:
    """Give a DataJoint connection the mended adapter in place of DataJoint's; any other is left alone."""
    mended = _ADAPTERS.get(type(connection.adapter))
    if mended is not None:
        connection.adapter = mended(connection.conn_info["user"])


def _said(error: Exception) -> str:
    """Return the server's own sentence: psycopg2 adds lines to it, pymysql puts a number before it."""
    diagnosis = getattr(error, "diag", None)
    text = getattr(diagnosis, "message_primary", None) or (error.args[-1] if error.args else "")
    return " ".join(str(text).split())

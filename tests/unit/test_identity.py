"""Names of peers: what they look like, and everything that is not one."""

import pytest

from hyperion.adapters.link.errors import Invalid
from hyperion.adapters.link.identity import Identity, Role, parse_identity, role_host

GOOD = [
    ("spiffe://hyperion.local/federation/main", Role.FEDERATION, "main"),
    ("spiffe://hyperion.local/scheduler/aws-us-east-1", Role.SCHEDULER, "aws-us-east-1"),
    ("spiffe://a/agent/home/ip-10-0-0-1.ec2.internal", Role.AGENT, "home/ip-10-0-0-1.ec2.internal"),
    ("spiffe://x_1.y-z/client/Ann.Other_2", Role.CLIENT, "Ann.Other_2"),
    ("spiffe://x/admin/root", Role.ADMIN, "root"),
]

BAD = [
    ("", "no SPIFFE name"),
    ("https://x/agent/a/b", "no SPIFFE name"),
    ("SPIFFE://x/client/a", "no SPIFFE name"),
    ("spiffe:/x/client/a", "no SPIFFE name"),
    ("spiffe://x/client/" + "a" * 3000, "no SPIFFE name"),
    ("spiffe://x", "lacks a role or a name"),
    ("spiffe://x/client", "lacks a role or a name"),
    ("spiffe:///client/a", "trust domain ''"),
    ("spiffe://X/client/a", "trust domain 'X'"),
    ("spiffe://x:80/client/a", "trust domain"),
    ("spiffe://me@x/client/a", "trust domain"),
    ("spiffe://x.\n/client/a", "trust domain"),
    ("spiffe://x/root/a", "role 'root' is unknown"),
    ("spiffe://x/Client/a", "role 'Client' is unknown"),
    ("spiffe://x/client/", "is not 1 to 128"),
    ("spiffe://x/client/a/b", "expected one segment"),
    ("spiffe://x/client/a/", "expected one segment"),
    ("spiffe://x/agent/a", "expected <cluster>/<node>"),
    ("spiffe://x/agent/a/b/c", "expected <cluster>/<node>"),
    ("spiffe://x/agent//b", "is not 1 to 128"),
    ("spiffe://x/agent/../b", "is not 1 to 128"),
    ("spiffe://x/agent/a/.", "is not 1 to 128"),
    ("spiffe://x/client/a?b=c", "is not 1 to 128"),
    ("spiffe://x/client/a#b", "is not 1 to 128"),
    ("spiffe://x/client/a%2fb", "is not 1 to 128"),
    ("spiffe://x/client/a b", "is not 1 to 128"),
    ("spiffe://x/client/a\n", "is not 1 to 128"),
    ("spiffe://x/client/ä", "is not 1 to 128"),
    ("spiffe://x/client/" + "a" * 129, "is not 1 to 128"),
]


@pytest.mark.parametrize(("uri", "role", "name"), GOOD)
def test_a_name_is_read_and_written_the_same(uri, role, name):
    identity = parse_identity(uri)
    assert (identity.role, identity.name) == (role, name)
    assert identity.uri == str(identity) == uri
    assert Identity(identity.trust_domain, role, name) == identity


@pytest.mark.parametrize(("uri", "why"), BAD)
def test_what_is_no_name_is_refused_with_the_reason(uri, why):
    with pytest.raises(Invalid) as refusal:
        parse_identity(uri)
    assert why in str(refusal.value)
    assert len(str(refusal.value)) < 400
    assert "\n" not in str(refusal.value)


def test_a_role_is_pinned_by_a_host_name():
    assert role_host(Role.SCHEDULER) == "scheduler.hyperion.internal"

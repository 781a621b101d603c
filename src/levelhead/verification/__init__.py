"""Re-measure any model against its base and judge it by a policy: a gate that CI can hold.

`verify` is the whole of it. It prunes nothing and trusts nothing that a model's folder claims.
"""

from levelhead.verification.gate import verify
from levelhead.verification.policy import Policy, read_policy

__all__ = ["Policy", "read_policy", "verify"]

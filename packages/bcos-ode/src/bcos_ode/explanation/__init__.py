"""Exact accounts of fields and of what they add up to along a trajectory."""

from .coefficients import Coefficients, read_coefficients
from .integrated import Account, integrate_contributions, integrated_terms, true_integrated_contributions
from .ledger import Ledger, View, ledger, product_ledger
from .propagator import Propagation, propagate
from .truth import LedgerError, ledger_error, true_ledger, true_product_ledger
from .views import check_views, disagreement, norm_share

__all__ = [
    "Account",
    "Coefficients",
    "Ledger",
    "LedgerError",
    "Propagation",
    "View",
    "check_views",
    "disagreement",
    "integrate_contributions",
    "integrated_terms",
    "ledger",
    "ledger_error",
    "norm_share",
    "product_ledger",
    "propagate",
    "read_coefficients",
    "true_integrated_contributions",
    "true_ledger",
    "true_product_ledger",
]

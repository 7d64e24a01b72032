"""The words of drawn receipts and forms. Names of shops, streets and people are put together from parts; none is real."""

from __future__ import annotations

AMOUNTS: dict[str, tuple[str, ...]] = {
    "total": ("Total", "TOTAL", "Amount due"),
    "tax": ("Tax", "GST", "VAT"),
    "cash": ("Cash", "CASH", "Paid"),
    "change": ("Change", "CHANGE"),
    "tip": ("Tip", "Service"),
    "discount": ("Discount", "Less"),
    "deposit": ("Deposit", "Bottles"),
    "rounding": ("Rounding", "Round"),
}
"""Fields whose values are amounts, and how they are printed."""
NUMBERS: dict[str, tuple[str, ...]] = {
    "order": ("Order", "Order no."),
    "client": ("Client", "Client no."),
    "room": ("Room", "Room no."),
    "account": ("Account", "Acct"),
    "batch": ("Batch", "Lot"),
    "invoice": ("Invoice", "Bill no."),
    "table": ("Table", "Desk"),
    "unit": ("Unit", "Unit no."),
}
"""Fields of forms whose values are numbers of the same make."""
FIRST = ("Lake", "Hill", "Oak", "River", "Sun", "North", "Green", "Star", "Stone", "Gold", "Blue", "Park")
SECOND = ("view", "side", "land", "field", "point", "way", "port", "wood", "gate", "bridge")
SHOPS = ("Market", "Store", "Hardware", "Cafe", "Books", "Pharmacy", "Trading", "Bakery", "Restaurant", "Stationery")
ENDINGS = ("Ltd", "SDN BHD", "Inc", "& Sons", "Co", "(M) SDN BHD", "")
STREETS = ("Street", "Road", "Lane", "Avenue", "Square")
GOODS = (
    "Tea",
    "Bread",
    "Rice",
    "Milk",
    "Soap",
    "Pen",
    "Nails",
    "Paint",
    "Cable",
    "Sugar",
    "Noodles",
    "Battery",
    "Glue",
    "Salt",
)
TITLES = ("RECEIPT", "TAX INVOICE", "CASH BILL", "Invoice", "Thank you")
FORMS = ("Delivery note", "Work order", "Check-in", "Claim form", "Return slip")
THANKS = ("Thank you", "Please come again", "Goods sold are not returnable", "Have a nice day")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")

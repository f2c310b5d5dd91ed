"""A trading example, as it comes with databases: names with spaces, pictures, employees who report to each other, few texts."""

from __future__ import annotations

from tests.wild.sample import Filler, Question, Sample

TABLES = """
CREATE TABLE "Suppliers" ("SupplierID" INTEGER PRIMARY KEY, "CompanyName" VARCHAR(40), "ContactName" VARCHAR(30), "City" VARCHAR(15),
    "Country" VARCHAR(15), "Phone" VARCHAR(24), "HomePage" TEXT);
CREATE TABLE "Categories" ("CategoryID" INTEGER PRIMARY KEY, "CategoryName" VARCHAR(15), "Description" TEXT, "Picture" BLOB);
CREATE TABLE "Products" ("ProductID" INTEGER PRIMARY KEY, "ProductName" VARCHAR(40), "SupplierID" INTEGER REFERENCES "Suppliers" ("SupplierID"),
    "CategoryID" INTEGER REFERENCES "Categories" ("CategoryID"), "QuantityPerUnit" VARCHAR(20), "UnitPrice" DECIMAL(10, 2), "UnitsInStock" INTEGER,
    "Discontinued" SMALLINT NOT NULL, "Tasting Notes" TEXT);
CREATE TABLE "Customers" ("CustomerID" CHAR(5) PRIMARY KEY, "CompanyName" VARCHAR(40), "ContactName" VARCHAR(30), "ContactTitle" VARCHAR(30),
    "City" VARCHAR(15), "Country" VARCHAR(15), "Phone" VARCHAR(24), "Fax" VARCHAR(24));
CREATE TABLE "Employees" ("EmployeeID" INTEGER PRIMARY KEY, "LastName" VARCHAR(20), "FirstName" VARCHAR(10), "Title" VARCHAR(30), "BirthDate" DATE,
    "HomePhone" VARCHAR(24), "Photo" BLOB, "Notes" TEXT, "ReportsTo" INTEGER, "PhotoPath" VARCHAR(255), "Password" VARCHAR(64));
CREATE TABLE "Orders" ("OrderID" INTEGER PRIMARY KEY, "CustomerID" CHAR(5) REFERENCES "Customers" ("CustomerID"), "EmployeeID" INTEGER REFERENCES "Employees" ("EmployeeID"),
    "OrderDate" DATE, "ShippedDate" DATE, "ShipName" VARCHAR(40), "ShipCity" VARCHAR(15), "Remark" TEXT);
CREATE TABLE "Order Details" ("OrderID" INTEGER REFERENCES "Orders" ("OrderID"), "ProductID" INTEGER REFERENCES "Products" ("ProductID"), "UnitPrice" DECIMAL(10, 2), "Quantity" INTEGER, "Discount" DOUBLE,
    PRIMARY KEY ("OrderID", "ProductID"));
CREATE TABLE "Territories" ("TerritoryID" VARCHAR(20) PRIMARY KEY, "TerritoryDescription" CHAR(50), "RegionID" INTEGER);
CREATE TABLE "EmployeeTerritories" ("EmployeeID" INTEGER, "TerritoryID" VARCHAR(20), PRIMARY KEY ("EmployeeID", "TerritoryID"));
CREATE TABLE "Price History" ("ProductID" INTEGER, "Until" DATE, "UnitPrice" DECIMAL(10, 2), "Why" TEXT, PRIMARY KEY ("ProductID", "Until"));
"""
fill = Filler(
    24,
    "green tea|goat cheese|rye crackers|fig jam|smoked trout|white beans|walnut oil|dried pears",
    "arrives|keeps|is packed|sells well",
    "in tins|by weight|cooled|since the spring",
)
PRODUCTS = [
    (71, "Ombra di Luna", "Two months in straw; hazelnut at the end, goes with pear mustard."),
    (72, "Nordic Crisp", "Baked twice, no yeast; snaps even in damp air."),
    (73, "Kyoto Morning", "First flush. Brew at 70 degrees, never hotter."),
    (74, "Casa Verde", "Cloudy on purpose, pressed from unripe olives."),
    (75, "Old Harbour", "Smoked over alder for nine hours."),
]
NOTE = "Holds a degree in botany and speaks Basque. Found the supplier in Navarra."


def _rows() -> dict:
    products = [
        (n, f"{fill.title()} {n}", n % 6 + 1, n % 4 + 1, "12 boxes", 10 + n, 20, 0, fill.text(2) if n % 2 else None)
        for n in range(1, 61)
    ]
    products += [(n, name, 2, 3, "24 pieces", 18, 5, 0, text) for n, name, text in PRODUCTS]
    orders = [
        (10_000 + n, f"CU{n % 30:03d}", n % 5 + 1, "2024-03-01", "2024-03-05", f"Customer {n % 30}", "Lyon", None)
        for n in range(1, 150)
    ]
    orders.append(
        (
            10_900,
            "CU007",
            2,
            "2024-04-01",
            None,
            "Customer 7",
            "Porto",
            "Leave the crates at the lighthouse keeper's, he has a cold cellar.",
        )
    )
    orders.append(
        (10_901, "CU009", 2, "2024-04-02", None, "Customer 9", "Bergen", "Wedding on the 12th, must not come later.")
    )
    return {
        "Suppliers": [(n, name, "Mr Smith", "Pamplona", "Spain", "(948) 555-010", None) for n, name in enumerate(["Finca Etxea", "Alder & Sons", "Uji Leaves", "Mulino", "Fjord Foods", "Bean Brothers"], 1)],
        "Categories": [(1, "Beverages", "Soft drinks, coffees and teas", b"\x89PNG\r\n" + bytes(200)), (2, "Condiments", "Sweet and savoury sauces, relishes", b"\x89PNG\r\n" + bytes(200)),
                       (3, "Dairy", "Cheeses, also from raw milk", b"\x89PNG\r\n" + bytes(200)), (4, "Seafood", "Fish from cold waters", b"\x89PNG\r\n" + bytes(200))],
        "Products": products,
        "Customers": [(f"CU{n:03d}", f"Customer {n}", "Ms Roy", "Owner", "Lyon", "France", "555-0101", None) for n in range(30)],
        "Employees": [(1, "Sol", "Ines", "Buyer", "1980-01-01", "555-9871", b"\xff\xd8\xff" + bytes(300), NOTE, None, "http://x/ines.jpg", "hunter22pass"),
                      *[(n, f"Clerk{n}", "Tom", "Clerk", "1980-01-01", "555-9872", None, fill.text(2), 1, None, f"hunter2{n}pass") for n in range(2, 6)]],
        "Orders": orders,
        "Order Details": [(10_000 + n, n % 60 + 1, 9.5, 3, 0.0) for n in range(1, 150)] + [(10_900, 71, 9.5, 40, 0.0), (10_901, 75, 9.5, 90, 0.0)],
        "Territories": [(f"0{n}581", f"Territory {n}", n % 4) for n in range(1, 20)],
        "EmployeeTerritories": [(n % 5 + 1, f"0{n}581") for n in range(1, 20)],
        "Price History": [(n, "2020-12-31", 7.5, "Before the manatee agreement with the supplier about prices", ) for n in range(1, 60)],
    }  # fmt: skip


SAMPLE = Sample(
    tables=TABLES,
    rows=_rows(),
    questions=[
        Question("cheese that goes with pear mustard", "Products", "71", "hazelnut"),
        Question("Ombra di Luna", "Products", "71", "Two months in straw"),
        Question("crisp bread without yeast", "Products", "72", "damp air"),
        Question("brewing temperature of first flush tea", "Products", "73", "70 degrees"),
        Question("oil from unripe olives", "Products", "74", "Cloudy on purpose"),
        Question("smoked over alder", "Products", "75", "nine hours"),
        Question("order to leave with the lighthouse keeper", "Orders", "10900", "cold cellar"),
        Question("order for a wedding", "Orders", "10901", "must not come later"),
        Question("order of Ombra di Luna to Porto", "Orders", "10900", "lighthouse"),
        Question("products of the supplier Uji Leaves Kyoto Morning", "Products", "73", "First flush"),
    ],
    hidden={"manatee": "old prices before the agreement"},
    secrets=["hunter22pass", "hunter23pass"],
    private=["555-9871", "(948) 555-010"],
    settings="""
[[indexes]]
name = "products"
table = "Products"
key = "ProductID"
title = "ProductName"
text = ["Tasting Notes", "supplier.CompanyName", "category.CategoryName"]
[indexes.joins.supplier]
table = "Suppliers"
on = {SupplierID = "SupplierID"}
[indexes.joins.category]
table = "Categories"
on = {CategoryID = "CategoryID"}

[[indexes]]
name = "orders"
table = "Orders"
key = "OrderID"
text = ["Remark", "ShipName", "ShipCity"]
[[indexes.parts]]
table = "Order Details"
on = "OrderID"
text = "{Quantity} x {product.ProductName}"
inline = true
[indexes.parts.joins.product]
table = "Products"
on = {ProductID = "ProductID"}
""",
)

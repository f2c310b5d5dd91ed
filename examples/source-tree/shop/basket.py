"""What a customer wants to buy."""


class Basket:
    """Articles with their number."""

    def __init__(self):
        self.articles = {}

    def add(self, article, number=1):
        """Put articles into the basket."""
        self.articles[article] = self.articles.get(article, 0) + number

    def total(self, prices, discount=0.0):
        """Return the sum of all prices, less a discount between 0 and 1."""
        return sum(prices[article] * number for article, number in self.articles.items()) * (
            1 - discount
        )

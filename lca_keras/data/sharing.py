"""Features of songs that several stores have in common."""

from lca_keras.data.store import StoreError


class SharedFeatures:
    """Songs' features in several stores, found by the content of the songs' files.

    Args:
        stores: List of `FeatureStore`, of one feature configuration.

    Attributes:
        found: Number of songs that `find` has found.
    """

    def __init__(self, stores):
        self.found = 0
        self._places = {
            record.digests: (store, key)
            for store in stores
            for key, record in store.records.items()
            if record.digests
        }

    def __contains__(self, digests):
        return digests in self._places

    def find(self, digests):
        """The `SongFeatures` of files with these hashes, or `None`."""
        if digests not in self:
            return None
        store, key = self._places[digests]
        try:
            features = store.read(key)
        except StoreError:  # Damaged, or renewed by another process.
            return None
        self.found += 1
        return features

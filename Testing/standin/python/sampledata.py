"""The module SampleData: sources are registered, and load by their downloader or a local file."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import slicer

_sources: dict[str, list[SampleDataSource]] = {}


class SampleDataSource:
    """One entry of Sample Data."""

    def __init__(
        self,
        sampleName: str | None = None,
        sampleDescription: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        checksums: Any = None,
        loadFiles: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileTypes: Any = None,
        loadFileProperties: Any = None,
        loadFileType: Any = None,
    ) -> None:
        self.sampleName = sampleName
        self.sampleDescription = sampleDescription or sampleName
        single = isinstance(uris, str)  # what Slicer takes for one file; without any it fails
        self.uris = [uris] if single else uris
        self.fileNames = [fileNames] if single else fileNames
        count = len(self.uris)
        self.nodeNames = _per_file(nodeNames, count, single)
        self.checksums = _per_file(checksums, count, single)
        self.loadFiles = _per_file(loadFiles, count, single)
        self.loadFileTypes = _per_file(loadFileTypes, count, single or loadFileTypes is None)
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName
        fields = (self.fileNames, self.nodeNames, self.checksums, self.loadFiles)
        if any(len(field) != count for field in (*fields, self.loadFileTypes)):
            raise ValueError("All fields of sample data source must have the same length")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SampleDataSource) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


def _per_file(value: Any, count: int, single: bool) -> list[Any]:
    return [value] * count if single or value is None else list(value)


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


class SampleDataLogic:
    """Registers and loads samples."""

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileTypes: Any = None,
        loadFiles: Any = None,
        loadFileProperties: Any = None,
        checksums: Any = None,
        loadFileType: Any = None,
    ) -> None:
        if loadFileType is not None and loadFileTypes is not None:
            raise ValueError("loadFileType and loadFileTypes cannot be specified at the same time")
        source = SampleDataSource(
            sampleName=sampleName,
            uris=uris,
            fileNames=fileNames,
            nodeNames=nodeNames,
            checksums=checksums,
            customDownloader=customDownloader,
            thumbnailFileName=thumbnailFileName,
            loadFileTypes=loadFileTypes or loadFileType,
        )
        if not SampleDataLogic.isSampleDataSourceRegistered(category, source):
            _sources.setdefault(category, []).append(source)

    @staticmethod
    def registerCustomSampleDataCategory(category: str, title: str) -> None:
        _sources.setdefault(category, [])

    @staticmethod
    def sampleDataSourcesByCategory(category: str | None = None) -> Any:
        return _sources if category is None else _sources.get(category, [])

    @staticmethod
    def isSampleDataSourceRegistered(category: str, sampleDataSource: Any) -> bool:
        return sampleDataSource in _sources.get(category, [])

    def sourceForSampleName(self, sampleName: str) -> SampleDataSource | None:
        every = (source for sources in _sources.values() for source in sources)
        return next((source for source in every if source.sampleName == sampleName), None)

    def downloadFromSource(self, source: SampleDataSource, *_: Any) -> list[Any]:
        """Load a source: only from its own downloader or from files, never from a network."""
        if source.customDownloader is not None:
            result = source.customDownloader(source)
            return _listed(result)
        return [self._load(source, index) for index in range(len(source.uris))]

    def _load(self, source: SampleDataSource, index: int) -> Any:
        parts = urlparse(source.uris[index])
        if parts.scheme != "file":
            raise RuntimeError(f"the stand-in downloads nothing: {source.uris[index]}")
        path = Path(url2pathname(parts.path))
        name = source.nodeNames[index] or path.stem
        return slicer.util.loadVolume(str(path), {"name": name})

    def downloadSample(self, sampleName: str) -> Any:
        nodes = self.downloadSamples(sampleName)
        return nodes[0] if nodes else None

    def downloadSamples(self, sampleName: str) -> list[Any]:
        source = self.sourceForSampleName(sampleName)
        if source is None:
            raise KeyError(f"there is no sample data '{sampleName}'")
        return self.downloadFromSource(source)


def downloadSample(sampleName: str) -> Any:
    """Load one sample by name."""
    return SampleDataLogic().downloadSample(sampleName)

"""slicer.app.coreIOManager(): reads and writes with MRML's own logics and storage nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer

_READERS = {
    "VolumeFile": (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm"),
    "SegmentationFile": (".seg.nrrd", ".seg.nhdr"),
    "MarkupsFile": (".mrk.json", ".fcsv"),
    "SceneFile": (".mrml", ".mrb"),
    "TableFile": (".csv", ".tsv"),
}
_WRITERS = {
    "vtkMRMLSegmentationNode": ("SegmentationFile", (".seg.nrrd", ".nrrd")),
    "vtkMRMLVolumeNode": ("VolumeFile", (".nrrd", ".nhdr", ".nii.gz", ".nii", ".mha")),
    "vtkMRMLMarkupsNode": ("MarkupsFile", (".mrk.json", ".fcsv")),
    "vtkMRMLTableNode": ("TableFile", (".tsv", ".csv", ".txt")),
    "vtkMRMLTextNode": ("TextFile", (".txt", ".json")),
    "vtkMRMLTransformNode": ("TransformFile", (".h5", ".tfm")),
    "vtkMRMLModelNode": ("ModelFile", (".vtk", ".stl")),
}


class CoreIOManager:
    """Loads files into the scene, and writes nodes and whole scenes."""

    def __init__(self, scene: Any, logic: Any) -> None:
        self._scene, self._logic = scene, logic
        self._loaders: dict[str, Callable[[str, dict[str, Any]], Any]] = {
            "VolumeFile": self._load_volume,
            "SegmentationFile": self._load_segmentation,
            "MarkupsFile": self._load_markups,
            "TableFile": self._load_table,
            "SceneFile": self._load_scene,
        }

    def fileType(self, name: str) -> str:
        known = sorted(
            (
                (len(e), k)
                for k, all_ in _READERS.items()
                for e in all_
                if str(name).lower().endswith(e)
            )
        )
        return known[-1][1] if known else "NoFile"

    def loadNodes(
        self, file_type: str, properties: dict[str, Any], loaded: Any, messages: Any = None
    ) -> bool:
        """Load one file; False when it cannot be read."""
        path = str(properties["fileName"])
        if file_type not in self._loaders or not Path(path).exists():
            return False
        result = self._loaders[file_type](path, properties)
        if result is None:
            return False
        if loaded is not None and isinstance(result, slicer.vtkMRMLNode):
            loaded.AddItem(result)
        return True

    def loadScene(self, path: str, clear: bool = True) -> bool:
        return self._load_scene(path, {"clear": clear}) is not None

    def _load_volume(self, path: str, properties: dict[str, Any]) -> Any:
        label = bool(properties.get("labelmap", False))
        name = properties.get("name") or _stem(path)
        volumes = self._logic.GetModuleLogic("Volumes")
        node = volumes.AddArchetypeVolume(path, name, 1 if label else 0)
        if node is not None and properties.get("show", True):
            selection = self._logic.GetSelectionNode()
            if label:
                selection.SetActiveLabelVolumeID(node.GetID())
            else:
                selection.SetActiveVolumeID(node.GetID())
            self._logic.PropagateVolumeSelection()
        return node

    def _load_segmentation(self, path: str, properties: dict[str, Any]) -> Any:
        segmentations = self._logic.GetModuleLogic("Segmentations")
        name = properties.get("name") or _stem(path)
        return segmentations.LoadSegmentationFromFile(path, True, name)

    def _load_markups(self, path: str, properties: dict[str, Any]) -> Any:
        node_id = self._logic.GetModuleLogic("Markups").LoadMarkups(path, _stem(path))
        return self._scene.GetNodeByID(node_id) if node_id else None

    def _load_table(self, path: str, properties: dict[str, Any]) -> Any:
        return self._logic.GetModuleLogic("Tables").AddTable(path, _stem(path))

    def _load_scene(self, path: str, properties: dict[str, Any]) -> Any:
        clear = bool(properties.get("clear", False))
        if path.endswith(".mrb"):
            return True if self._scene.ReadFromMRB(path, clear) else None
        self._scene.SetURL(path)
        done = self._scene.Connect() if clear else self._scene.Import()
        return True if done else None

    def fileWriterFileType(self, node: Any, *_: Any) -> str:
        return next((kind for cls, (kind, _) in _WRITERS.items() if node.IsA(cls)), "NoFile")

    def fileWriterExtensions(self, node: Any) -> tuple[str, ...]:
        found = next((all_ for cls, (_, all_) in _WRITERS.items() if node.IsA(cls)), ())
        return tuple(f"{node.GetClassName()} (*{extension})" for extension in found)

    def extractKnownExtension(self, name: str, node: Any) -> str:
        found = next((all_ for cls, (_, all_) in _WRITERS.items() if node.IsA(cls)), ())
        fitting = [extension for extension in found if str(name).lower().endswith(extension)]
        return max(fitting, key=len, default=Path(name).suffix)

    def saveNodes(self, file_type: str, properties: dict[str, Any], messages: Any = None) -> bool:
        path = str(properties["fileName"])
        if file_type == "SceneFile":
            return self.saveScene(path)
        node = self._scene.GetNodeByID(properties["nodeID"])
        self.addDefaultStorageNodes()
        storage = node.GetStorageNode()
        storage.SetFileName(path)
        return bool(storage.WriteData(node))

    def saveScene(self, path: str, *_: Any) -> bool:
        """Write the scene: a bundle, or a .mrml file with its data files beside it."""
        if path.endswith(".mrb"):
            return bool(self._scene.WriteToMRB(path))
        self.addDefaultStorageNodes()
        folder = Path(path).parent
        self._scene.SetURL(path)
        self._scene.SetRootDirectory(str(folder))
        for node in _nodes(self._scene, "vtkMRMLStorableNode"):
            storage = node.GetStorageNode()
            if storage is not None and node.GetSaveWithScene():
                suffix = storage.GetDefaultWriteFileExtension()
                storage.SetFileName(str(folder / f"{node.GetID()}.{suffix}"))
                storage.WriteData(node)
        return bool(self._scene.Commit())

    def addDefaultStorageNodes(self) -> None:
        for node in _nodes(self._scene, "vtkMRMLStorableNode"):
            if node.GetStorageNode() is None:
                node.AddDefaultStorageNode()

    def exportNodes(
        self,
        node_ids: list[str],
        paths: list[str],
        properties: dict[str, Any],
        harden: bool,
        messages: Any = None,
    ) -> bool:
        """Write nodes to files without touching their own storage nodes."""
        pairs = zip(node_ids, paths, strict=True)
        done = [self._export(self._scene.GetNodeByID(each), path) for each, path in pairs]
        return all(done)

    def _export(self, node: Any, path: str) -> bool:
        storage = node.CreateDefaultStorageNode()
        storage.SetFileName(str(path))
        done = bool(storage.WriteData(node))
        storage.UnRegister(None)
        return done


def _nodes(scene: Any, kind: str) -> list[Any]:
    return [scene.GetNthNodeByClass(i, kind) for i in range(scene.GetNumberOfNodesByClass(kind))]


def _stem(path: str) -> str:
    name = Path(path).name
    return name.partition(".")[0]

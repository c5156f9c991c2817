"""PySide6 shown as PythonQt shows Qt: properties, signals, flat enums, dialogs and .ui files."""

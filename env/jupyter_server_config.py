"""Settings of the server that env/lab starts."""

import shutil
import subprocess

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager


class Contents(AsyncLargeFileManager):
    """Files as ever, but a saved notebook of which only the outputs changed is no change for git."""

    def run_post_save_hooks(self, model, os_path):
        """Tell git so: by itself it would look at the size of the file first."""
        super().run_post_save_hooks(model, os_path)
        git = ["git", "-C", self.root_dir]
        if model["type"] == "notebook" and shutil.which("git"):
            same = subprocess.run([*git, "diff", "--quiet", "--", os_path], capture_output=True).returncode == 0
            if same:
                subprocess.run([*git, "add", "--update", "--", os_path], capture_output=True)


c.ServerApp.contents_manager_class = Contents  # noqa: F821  Jupyter gives `c`

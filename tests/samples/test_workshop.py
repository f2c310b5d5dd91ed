"""The sample workshop: the same each time, and what `init` writes for it has parts and shows nothing hidden."""

from rag_index.samples import workshop
from tests.project import Project


def test_it_is_the_same_each_time_and_can_be_searched_without_an_edit(tmp_path):
    assert workshop.write(tmp_path / "one.db") == workshop.write(tmp_path / "two.db")
    assert (tmp_path / "one.db").read_bytes() == (tmp_path / "two.db").read_bytes()

    project = Project(tmp_path / "project")
    project.config.unlink()
    assert project.cli("sample", "workshop", "--out", f"{project.folder}/workshop.db", "--settings").returncode == 0
    assert 'url = "sqlite:///workshop.db"' in project.config.read_text()
    again = project.cli("sample", "workshop", "--out", f"{project.folder}/other.db", "--settings")
    assert f"Left {project.config} as it is" in again.stdout
    (index,) = project.settings.indexes
    assert (index.title, index.where, [part.table for part in index.parts]) == ("title", "is_private = 0", ["remark"])
    project.run()
    texts = project.texts("repair")
    assert len(texts) == 57
    assert "As soon as it is switched on, the whole flat is dark.\nPiet Vos" in texts["5"][0]
    assert "Water had reached the terminal; dried for a day and sealed with silicone." in texts["5"]
    assert not any("Pays late" in text for chunks in texts.values() for text in chunks)

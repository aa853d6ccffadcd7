import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

import core.rows


class Migration(migrations.Migration):
    dependencies = [
        ("hypervisor", "0002_pulse_figures"),
    ]

    operations = [
        migrations.CreateModel(
            name="Stray",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("uid", core.rows.UidField(editable=False, verbose_name="id")),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                ("kind", models.CharField(choices=[("guest", "Guest"), ("volume", "Volume")], max_length=16)),
                ("name", models.CharField(max_length=255)),
                ("hypervisor", models.CharField(max_length=16)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("seen", "Seen"),
                            ("adopting", "Adopting"),
                            ("adopted", "Adopted"),
                            ("quarantining", "Quarantining"),
                            ("quarantined", "Quarantined"),
                            ("error", "Error"),
                        ],
                        default="seen",
                        max_length=16,
                    ),
                ),
                ("error", models.JSONField(null=True)),
                ("observed", models.CharField(blank=True, max_length=16)),
                ("facts", models.JSONField(default=dict)),
                ("seen_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                (
                    "node",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="strays", to="hypervisor.node"
                    ),
                ),
            ],
            options={
                "ordering": ["-created_at", "-id"],
                "abstract": False,
                "indexes": [models.Index(fields=["-created_at", "-id"], name="stray_newest")],
                "constraints": [models.UniqueConstraint(fields=("node", "name"), name="one_stray_per_name")],
            },
        ),
    ]

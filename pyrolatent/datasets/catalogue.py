"""The public tables: where each comes from, how it is made into ours, and what it holds."""

from pyrolatent.datasets.record import TableRecord

UCI = "https://archive.ics.uci.edu/dataset"
BY = "CC BY 4.0"  # as the pages of the UCI repository state
COMMAS = "put commas between its numbers"
PLAIN_CELLS = "write its cells in full precision, as pandas.read_excel gives them"
CELL_FEATURES = (
    *("radius", "texture", "perimeter", "area", "smoothness"),
    *("compactness", "concavity", "concave_points", "symmetry", "fractal_dimension"),
)

TABLES = {
    "bank_marketing": TableRecord(
        title="Bank marketing by telephone (additional, full)",
        citation="S. Moro, P. Cortez and P. Rita (2014)",
        licence=BY,
        url=f"{UCI}/222/bank+marketing",
        file="bank-additional-full.csv (in bank-additional.zip)",
        recipe="replace its semicolons by commas",
        header=(
            "age,job,marital,education,default,housing,loan,contact,month,day_of_week,duration,campaign,"
            "pdays,previous,poutcome,emp_var_rate,cons_price_idx,cons_conf_idx,euribor3m,nr_employed,y"
        ),
        targets=("y",),
        rows=41_188,
        sha256="cf57887a8202de8f39efcb0faf198b5ff0147df028272df756e5d8bfe8f74830",
    ),
    "banknote": TableRecord(
        title="Banknote authentication",
        citation="V. Lohweg (2012)",
        licence=BY,
        url=f"{UCI}/267/banknote+authentication",
        file="data_banknote_authentication.txt",
        recipe="leave its lines as they are",
        header="variance,skewness,curtosis,entropy,class",
        targets=("class",),
        rows=1_372,
        sha256="a4e6eb57f00dc0c5696badf6553001e8871644b5b98ab1b2869054af1d255125",
    ),
    "boston": TableRecord(
        title="Boston housing",
        citation="D. Harrison and D. Rubinfeld (1978)",
        licence="none stated",
        url="http://lib.stat.cmu.edu/datasets/boston",
        file="the file boston",
        recipe=f"drop the text above the numbers, join the two lines of each row and {COMMAS}",
        header="CRIM,ZN,INDUS,CHAS,NOX,RM,AGE,DIS,RAD,TAX,PTRATIO,B,LSTAT,MEDV",
        targets=("MEDV",),
        rows=506,
        sha256="79ac716620024011b03c0c44d2bf99069b8173649181926d9109c25475a3804c",
    ),
    "breast_cancer_wdbc": TableRecord(
        title="Breast cancer Wisconsin (diagnostic)",
        citation="W. Wolberg, O. Mangasarian, N. Street and W. Street (1995)",
        licence=BY,
        url=f"{UCI}/17/breast+cancer+wisconsin+diagnostic",
        file="wdbc.data",
        recipe="drop the first column and move the second to the end, as 0 for M and 1 for B",
        header=",".join(
            (
                *(f"mean_{feature}" for feature in CELL_FEATURES),
                *(f"{feature}_error" for feature in CELL_FEATURES),
                *(f"worst_{feature}" for feature in CELL_FEATURES),
                "target",
            )
        ),
        targets=("target",),
        rows=569,
        sha256="432ff316e7bfb60b70a275064b4401315cc39f09c9099d031013a23647e98687",
    ),
    "concrete": TableRecord(
        title="Concrete compressive strength",
        citation="I-C. Yeh (1998)",
        licence=BY,
        url=f"{UCI}/165/concrete+compressive+strength",
        file="Concrete_Data.xls",
        recipe=PLAIN_CELLS,
        header=(
            "cement,blast_furnace_slag,fly_ash,water,superplasticizer,coarse_aggregate,fine_aggregate,"
            "age_days,compressive_strength"
        ),
        targets=("compressive_strength",),
        rows=1_030,
        sha256="aa8dddf417a2f5aabc4c26706a1b837c1a0f1f3d379aec2f6d08814c89fdd9ad",
    ),
    "credit_default": TableRecord(
        title="Default of credit card clients in Taiwan",
        citation="I-C. Yeh and C-h. Lien (2009)",
        licence=BY,
        url=f"{UCI}/350/default+of+credit+card+clients",
        file="default of credit card clients.xls",
        recipe="drop its first row and its column ID",
        header=(
            "LIMIT_BAL,SEX,EDUCATION,MARRIAGE,AGE,PAY_0,PAY_2,PAY_3,PAY_4,PAY_5,PAY_6,"
            "BILL_AMT1,BILL_AMT2,BILL_AMT3,BILL_AMT4,BILL_AMT5,BILL_AMT6,"
            "PAY_AMT1,PAY_AMT2,PAY_AMT3,PAY_AMT4,PAY_AMT5,PAY_AMT6,default_next_month"
        ),
        targets=("default_next_month",),
        rows=30_000,
        sha256="63e0f53f2617f0d5aaef6202779b78d123dc2c8d1d5cdfffa5a7d4ca20823445",
    ),
    "digits": TableRecord(
        title="Handwritten digits of 8 x 8 pixels (test part)",
        citation="E. Alpaydin and C. Kaynak (1998)",
        licence=BY,
        url=f"{UCI}/80/optical+recognition+of+handwritten+digits",
        file="optdigits.tes",
        recipe="leave its lines as they are",
        header=",".join((*(f"p{row}{column}" for row in range(8) for column in range(8)), "target")),
        targets=("target",),
        rows=1_797,
        sha256="afb8849456a7438101995e4bdb18bbbc2c0bce60db7dcf872eca854022b20698",
    ),
    "energy": TableRecord(
        title="Energy efficiency of buildings",
        citation="A. Tsanas and A. Xifara (2012)",
        licence=BY,
        url=f"{UCI}/242/energy+efficiency",
        file="ENB2012_data.xlsx",
        recipe=f"drop its blank rows and columns and {PLAIN_CELLS}",
        header=(
            "relative_compactness,surface_area,wall_area,roof_area,overall_height,orientation,"
            "glazing_area,glazing_area_distribution,heating_load,cooling_load"
        ),
        targets=("heating_load", "cooling_load"),
        rows=768,
        sha256="30bbe70b033ee81405632da64449bef3cc1e679017c81eb506c369539c27b1cc",
    ),
    "wine_quality_white": TableRecord(
        title="Wine quality, white",
        citation="P. Cortez, A. Cerdeira, F. Almeida, T. Matos and J. Reis (2009)",
        licence=BY,
        url=f"{UCI}/186/wine+quality",
        file="winequality-white.csv",
        recipe="replace its semicolons by commas",
        header=(
            "fixed_acidity,volatile_acidity,citric_acid,residual_sugar,chlorides,free_sulfur_dioxide,"
            "total_sulfur_dioxide,density,pH,sulphates,alcohol,quality"
        ),
        targets=("quality",),
        rows=4_898,
        sha256="e106dd60abce501b0c0bb2f791c8b9668402c59a6f81b5bd1ec8193670b462ae",
    ),
    "wine_recognition": TableRecord(
        title="Wine recognition (three cultivars)",
        citation="S. Aeberhard and M. Forina (1992)",
        licence=BY,
        url=f"{UCI}/109/wine",
        file="wine.data",
        recipe="move its first column, less 1, to the end",
        header=(
            "alcohol,malic_acid,ash,alcalinity_of_ash,magnesium,total_phenols,flavanoids,"
            "nonflavanoid_phenols,proanthocyanins,color_intensity,hue,od280_od315_of_diluted_wines,proline,target"
        ),
        targets=("target",),
        rows=178,
        sha256="47946bdb6b5017961c6e2b5daa8a74b0d98779c1c66f21645d1d737eded7e8cb",
    ),
    "yacht": TableRecord(
        title="Yacht hydrodynamics",
        citation="J. Gerritsma, R. Onnink and A. Versluis (1981)",
        licence=BY,
        url=f"{UCI}/243/yacht+hydrodynamics",
        file="yacht_hydrodynamics.data",
        recipe=COMMAS,
        header=(
            "longitudinal_position_of_buoyancy,prismatic_coefficient,length_displacement_ratio,"
            "beam_draught_ratio,length_beam_ratio,froude_number,residuary_resistance"
        ),
        targets=("residuary_resistance",),
        rows=308,
        sha256="a018aa7fc3b98eba549b35645a0001ef97b249d14d974ca508b3098db7f43f4c",
    ),
    "yeast": TableRecord(
        title="Where proteins of yeast are in the cell",
        citation="K. Nakai (1991); P. Horton and K. Nakai (1996)",
        licence=BY,
        url=f"{UCI}/110/yeast",
        file="yeast.data",
        recipe="put commas between its cells",
        header="sequence_name,mcg,gvh,alm,mit,erl,pox,vac,nuc,class",
        targets=("class",),
        rows=1_484,
        sha256="2fde00c42929588dbaa2870a7db3d7a8bcc7d3795875194d370e44425512ba27",
    ),
}
